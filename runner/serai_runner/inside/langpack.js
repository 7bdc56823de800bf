// The pipe process of a JavaScript repository that brings none: src/NAME.js with `exports.apply = (input, done)`.
'use strict';

const fs = require('fs');
const path = require('path');
const readline = require('readline');
const { pathToFileURL } = require('url');

const FIFO = '/tmp/algoout';
const FILE = path.join(process.cwd(), 'src', process.argv[2]);
const IS_A_MODULE = ['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE'];
let apply;

function reply(value) {
  fs.writeFileSync(FIFO, JSON.stringify(value));
}

function fail(error) {
  const isObject = typeof error === 'object' && error !== null;
  reply({
    error: {
      message: String(isObject && error.message ? error.message : error),
      stacktrace: isObject && error.stack ? String(error.stack) : '',
      error_type: isObject && error.error_type ? error.error_type : 'AlgorithmError',
    },
  });
}

function succeed(value) {
  if (Buffer.isBuffer(value)) {
    reply({ result: value.toString('base64'), metadata: { content_type: 'binary' } });
  } else {
    const kind = typeof value === 'string' ? 'text' : 'json';
    reply({ result: value === undefined ? null : value, metadata: { content_type: kind } });
  }
}

// Items of a generator come as one array: the protocol has one answer for each request.
async function collect(items) {
  const all = [];
  for await (const item of items) all.push(item);
  return all;
}

function finish(value, done) {
  const isGenerator = value && typeof value.next === 'function' && typeof value.return === 'function';
  if (isGenerator) collect(value).then((items) => done(null, items), done);
  else done(null, value);
}

function answer(line) {
  let answered = false;
  const done = (error, value) => {
    if (answered) return; // a callback called twice must not answer the next call
    answered = true;
    if (error) fail(error);
    else succeed(value);
  };
  try {
    const request = JSON.parse(line);
    const input = request.content_type === 'binary' ? Buffer.from(request.data, 'base64') : request.data;
    const returned = apply(input, done);
    if (returned && typeof returned.then === 'function') returned.then((value) => finish(value, done), done);
    else if (returned !== undefined || apply.length < 2) finish(returned, done); // it takes no callback
  } catch (error) {
    done(error || new Error('unknown error'));
  }
}

function start(loaded) {
  const own = (module) => (typeof module === 'function' ? module : module && module.apply); // functions have an apply, too
  const found = own(loaded) || own(loaded && loaded.default);
  if (typeof found !== 'function') {
    throw new Error(`src/${process.argv[2]}.js exports no function apply(input, done)`);
  }
  apply = found;
  readline.createInterface({ input: process.stdin }).on('line', answer);
  process.stdout.write('PIPE_INIT_COMPLETE\n');
}

function stop(error) {
  process.stderr.write(`${error && error.stack ? error.stack : error}\n`);
  process.exit(1);
}

function load() {
  try {
    start(require(FILE));
  } catch (error) {
    if (!error || !IS_A_MODULE.includes(error.code)) throw error;
    import(pathToFileURL(require.resolve(FILE)).href).then(start).catch(stop);
  }
}

try {
  load();
} catch (error) {
  stop(error);
}
