import { check, report } from "./common.mjs";

const folder = process.argv[2];
report("onnxruntime-node", async (require) => {
  const ort = require("onnxruntime-node");
  return check(folder, ort, await ort.InferenceSession.create(`${folder}/model.onnx`));
});
