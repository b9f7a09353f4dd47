// Sentences as a page would embed them, from the folder as it was written.
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";
import { report } from "./common.mjs";

const folder = process.argv[2];
report("@huggingface/transformers", async (require) => {
  const { env, pipeline } = await import(pathToFileURL(require.resolve("@huggingface/transformers")));
  env.allowRemoteModels = false;
  env.localModelPath = dirname(folder);
  const extract = await pipeline("feature-extraction", basename(folder), { dtype: "fp32" });
  const asked = JSON.parse(readFileSync(`${folder}/texts.json`));
  const found = (await extract(asked.texts, { pooling: "mean" })).tolist();
  let difference = 0;
  asked.embeddings.forEach((row, i) => row.forEach((value, j) => (difference = Math.max(difference, Math.abs(found[i][j] - value)))));
  return { loads: true, shapes: found.length, of: asked.texts.length, difference, what: "texts" };
});
