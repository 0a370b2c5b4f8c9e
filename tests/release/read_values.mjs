// What a user's program does in a folder that has the npm package: node read_values.mjs ADDRESS
import { connect } from "transparent-llm/node";

const llm = connect(process.argv[2]);
await llm.run(["My lord, the king of France", "What say you?"]);
const values = {
  residual: await llm.residualOut(1),
  heads: await llm.decomposedAttn(1, 2), // multiplied here, of its factors
  neurons: await llm.decomposedFfnOut(0, 3, 4),
};
const told = Object.entries(values).map(([name, { dtype, shape, bytes }]) => [
  name,
  { dtype, shape, data: Buffer.from(bytes).toString("base64") },
]);
console.log(JSON.stringify(Object.fromEntries(told)));
llm.close();
