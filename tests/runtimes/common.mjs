// What the scripts for JavaScript do: as common.py.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// The largest difference of an output; of padding nothing is asked.
function difference(found, wanted, mask) {
  if (found.length !== wanted.data.length) return Infinity;
  const inner = wanted.dims.length === 3 ? wanted.dims[2] : 0;
  let largest = 0;
  for (let i = 0; i < found.length; i++) {
    if (inner && !mask[Math.floor(i / inner)]) continue;
    largest = Math.max(largest, Math.abs(found[i] - wanted.data[i]));
  }
  return largest;
}

export async function check(folder, ort, session) {
  const batches = JSON.parse(readFileSync(`${folder}/cases.json`));
  const line = { loads: true, shapes: 0, of: batches.length, difference: 0 };
  for (const batch of batches) {
    const feeds = {};
    for (const name of ["input_ids", "attention_mask"])
      feeds[name] = new ort.Tensor("int64", BigInt64Array.from(batch[name].map(BigInt)), batch.dims);
    const found = await session.run(feeds);
    const names = Object.keys(batch.outputs).filter((name) => found[name]);
    if (!names.length) throw new Error(`outputs ${Object.keys(found)}`);
    for (const name of names)
      line.difference = Math.max(line.difference, difference(found[name].data, batch.outputs[name], batch.attention_mask));
    line.shapes += 1;
  }
  return line;
}

export async function report(name, run) {
  const require = createRequire(`${process.cwd()}/`);
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`));
  let line = { loads: false, shapes: 0, of: 0, difference: 0 };
  try {
    line = await run(require);
  } catch (error) {
    line.error = String(error).split("\n")[0].slice(0, 300);
  }
  console.log(JSON.stringify({ versions: { [name]: version, node: process.versions.node }, note: "", ...line }));
  process.exit(0);
}
