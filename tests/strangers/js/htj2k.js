// The npm package @cornerstonejs/codec-openjph as an encoder of HTJ2K: stdin is JSON, a list of frames and how to encode them; the
// code streams are printed in base64.
const { readFileSync } = require('node:fs');
const load = require('@cornerstonejs/codec-openjph');

async function main() {
  const codec = await (load.default || load)();
  const frames = JSON.parse(readFileSync(0, 'utf8')).map((one) => {
    const encoder = new codec.HTJ2KEncoder();
    const { rows, columns, bits, components, signed, transform, lossless, step, order, data } = one;
    const room = encoder.getDecodedBuffer({
      width: columns, height: rows, bitsPerSample: bits, componentCount: components, isSigned: signed,
      isUsingColorTransform: transform,
    });
    room.set(Buffer.from(data, 'base64'));
    encoder.setQuality(lossless, step);
    encoder.setProgressionOrder(order);
    encoder.setTLMMarker(true);
    encoder.encode();
    const stream = Buffer.from(encoder.getEncodedBuffer()).toString('base64');
    encoder.delete();
    return stream;
  });
  console.log(JSON.stringify({ frames }));
}

main();
