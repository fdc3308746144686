import { ponder } from "ponder:registry";
import { sample } from "ponder:schema";

ponder.on("Emitter:Sample", async ({ event, context }) => {
  await context.db.insert(sample).values({
    id: event.id,
    blockNumber: event.block.number,
    blockHash: event.block.hash,
    logIndex: event.log.logIndex,
    ...event.args,
  });
});
