// The npm package dcmjs-dimse as KN_PACS: argv is the hub's port, a file, its study, and the port where the hub looks for KN_PACS.
const { Client, Server, Scp, requests, responses, constants } = require('dcmjs-dimse');

const [, , port, file, study, ownPort] = process.argv;
const { Status, PresentationContextResult, TransferSyntax } = constants;
const received = { moved: [], got: [] };

class Receiver extends Scp {
  associationRequested(association) {
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      const known = context.getTransferSyntaxUids().includes(TransferSyntax.ExplicitVRLittleEndian);
      if (known) context.setResult(PresentationContextResult.Accept, TransferSyntax.ExplicitVRLittleEndian);
      else context.setResult(PresentationContextResult.RejectTransferSyntaxesNotSupported);
    }
    this.sendAssociationAccept();
  }

  cStoreRequest(request, callback) {
    received.moved.push(request.getDataset().getElements().SOPInstanceUID);
    const response = responses.CStoreResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

function asked(request) {
  return new Promise((resolve, reject) => {
    const client = new Client();
    const answers = [];
    request.on('response', (response) => {
      answers.push({
        status: response.getStatus(),
        data: response.hasDataset() ? response.getDataset().getElements() : null,
        completed: response.getCompleted ? response.getCompleted() : 0,
      });
    });
    client.on('cStoreRequest', (stored, callback) => {
      received.got.push(stored.getDataset().getElements().SOPInstanceUID);
      const response = responses.CStoreResponse.fromRequest(stored);
      response.setStatus(Status.Success);
      callback(response);
    });
    client.on('networkError', reject);
    client.on('associationRejected', (result) => reject(new Error(`rejected: ${JSON.stringify(result)}`)));
    client.on('closed', () => resolve(answers));
    client.addRequest(request);
    client.send('127.0.0.1', Number(port), 'KN_PACS', 'YIXIE');
  });
}

async function main() {
  const server = new Server(Receiver);
  server.listen(Number(ownPort));
  const echo = await asked(new requests.CEchoRequest());
  const store = await asked(new requests.CStoreRequest(file));
  const find = await asked(
    requests.CFindRequest.createStudyFindRequest({ StudyInstanceUID: study, PatientID: '', PatientName: '' }),
  );
  const move = await asked(requests.CMoveRequest.createStudyMoveRequest('KN_PACS', study));
  const get = await asked(requests.CGetRequest.createStudyGetRequest(study));
  server.close();
  // The package logs to the same stream; the last line is ours.
  process.stdout.write(`\n${JSON.stringify({ echo, store, find, move, get, received })}\n`);
  process.exit(0);
}

main().catch((error) => {
  process.stderr.write(`${error.stack || error}\n`);
  process.exit(1);
});
