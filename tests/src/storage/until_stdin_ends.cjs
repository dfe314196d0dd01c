// Loaded before a server's own program: the server ends when its standard input
// does, that is, when the test process is gone, however it went.
process.stdin.on("end", () => process.exit(0)).on("error", () => process.exit(0)).resume();
