// The npm package dicomweb-client, which OHIF asks the hub with: argv is the base URL, the token and the study; stdin is an instance.
// It is written for browsers, so it is lent an XMLHttpRequest.
const { readFileSync } = require('node:fs');
const { XMLHttpRequest } = require('xhr2');

globalThis.XMLHttpRequest = XMLHttpRequest;
const { api } = require('dicomweb-client');

const [, , url, token, study] = process.argv;
const hex = (buffer) => Buffer.from(buffer).toString('base64');

async function main() {
  const client = new api.DICOMwebClient({ url, headers: { Authorization: `Bearer ${token}` } });
  const sent = readFileSync(0);
  await client.storeInstances({ datasets: [sent.buffer.slice(sent.byteOffset, sent.byteOffset + sent.length)] });
  const studies = await client.searchForStudies({ queryParams: { StudyInstanceUID: study, includefield: '00201208' } });
  const [series] = await client.searchForSeries({ studyInstanceUID: study });
  const seriesInstanceUID = series['0020000E'].Value[0];
  const [instance] = await client.searchForInstances({ studyInstanceUID: study, seriesInstanceUID });
  const address = {
    studyInstanceUID: study,
    seriesInstanceUID,
    sopInstanceUID: instance['00080018'].Value[0],
  };
  const [metadata] = await client.retrieveSeriesMetadata(address);
  const frames = await client.retrieveInstanceFrames({ ...address, frameNumbers: [1] });
  const [bulk] = await client.retrieveBulkData({ BulkDataURI: metadata['7FE00010'].BulkDataURI });
  const whole = await client.retrieveInstance(address);
  const [rendered] = await client.retrieveInstanceRendered({ ...address, mediaTypes: [{ mediaType: 'image/jpeg' }] });
  const all = await client.retrieveStudy({ studyInstanceUID: study });
  let missing = 0;
  await client.retrieveStudyMetadata({ studyInstanceUID: '1.2.3.4.5' }).catch((error) => {
    missing = error.status;
  });
  process.stdout.write(
    JSON.stringify({
      count: studies[0]['00201208'].Value[0],
      name: Object.values(metadata['00100010'].Value[0])[0],
      frame: hex(frames[0]),
      bulk: hex(bulk),
      whole: hex(whole),
      all: all.map(hex),
      rendered: hex(rendered),
      missing,
    }),
  );
}

main().catch((error) => {
  process.stderr.write(`${error.stack || JSON.stringify(error)}\n`);
  process.exit(1);
});
