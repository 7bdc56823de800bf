// Runs a command in a box without network, and gives it one way out: a port of the box's own, joined to a socket of
// the machine's, behind which our proxy listens. `node relay.js SOCKET COMMAND WORD…`, with the proxy's options added.
'use strict';

const net = require('net');
const { spawn } = require('child_process');

const [socket, command, ...words] = process.argv.slice(2);

const server = net.createServer({ allowHalfOpen: true }, (from) => {
  const to = net.connect({ path: socket, allowHalfOpen: true });
  from.pipe(to);
  to.pipe(from);
  from.on('error', () => to.destroy());
  to.on('error', () => from.destroy());
});

server.listen(0, '127.0.0.1', () => {
  const address = `http://127.0.0.1:${server.address().port}`;
  const options = [`--proxy=${address}`, `--https-proxy=${address}`, '--noproxy='];
  const child = spawn(command, [...words, ...options], { stdio: 'inherit' });
  child.on('error', (error) => {
    process.stderr.write(`${command}: ${error.message}\n`);
    process.exit(127);
  });
  child.on('exit', (code) => process.exit(code === null ? 1 : code));
});
