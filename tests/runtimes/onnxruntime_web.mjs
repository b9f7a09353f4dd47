// WebAssembly, in Node.
import { readFileSync } from "node:fs";
import { check, report } from "./common.mjs";

const folder = process.argv[2];
report("onnxruntime-web", async (require) => {
  const ort = require("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  return check(folder, ort, await ort.InferenceSession.create(readFileSync(`${folder}/model.onnx`)));
});
