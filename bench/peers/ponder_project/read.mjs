// What a database that ponder has left holds: node read.mjs FOLDER QUERY
import { PGlite } from "@electric-sql/pglite";

const database = await PGlite.create(process.argv[2]);
const { rows } = await database.query(process.argv[3]);
process.stdout.write(JSON.stringify(rows));
await database.close();
