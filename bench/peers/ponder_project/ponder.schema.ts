import { onchainTable } from "ponder";

export const sample = onchainTable("sample", (t) => ({
  id: t.text().primaryKey(),
  blockNumber: t.bigint().notNull(),
  blockHash: t.hex().notNull(),
  logIndex: t.integer().notNull(),
  who: t.hex().notNull(),
  amount: t.bigint().notNull(),
  place: t.bigint().notNull(),
}));
