// Standard JSON in on stdin, standard JSON out on stdout: solc has no command line in npm that takes imports
// from node_modules. The sources are in the input; only what they import is read here.
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const modules = path.join(__dirname, "..", "node_modules");
const read = (name) => {
  const file = path.join(modules, name);
  return fs.existsSync(file) ? { contents: fs.readFileSync(file, "utf8") } : { error: `no ${file}` };
};
process.stdout.write(solc.compile(fs.readFileSync(0, "utf8"), { import: read }));
