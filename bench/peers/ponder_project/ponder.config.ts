import { createConfig } from "ponder";
import load from "./load.json";

export default createConfig({
  database: { kind: "pglite", directory: "./data" },
  chains: { anvil: { id: 31337, rpc: load.url, disableCache: true } },
  contracts: {
    Emitter: {
      chain: "anvil",
      abi: load.abi as any,
      address: load.address as `0x${string}`,
      startBlock: load.first,
      endBlock: load.last,
    },
  },
});
