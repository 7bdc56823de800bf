// Drives the published npm client through the life of an algorithm. Prints what each request was answered, a line each.
const algorithmia = require('algorithmia');

const [address, key, owner] = process.argv.slice(2);
const client = algorithmia.client(key, address);

function manage(method, path, body) {
  const data = body === undefined ? '' : JSON.stringify(body);
  return new Promise((resolve) => {
    client.req(path, method, data, { 'Content-Type': 'application/json' }, (answer, status) => {
      const said = Buffer.isBuffer(answer) ? answer.toString() : answer;
      console.log(JSON.stringify({ method, path, status, body: said === undefined ? null : said }));
      resolve(said);
    });
  });
}

const call = (path, input) => new Promise((resolve) => client.algo(path).pipe(input).then(resolve));

async function main() {
  const path = `/v1/algorithms/${owner}/from_npm`;
  await manage('GET', path);
  await manage('POST', `/v1/algorithms/${owner}`, {
    name: 'from_npm',
    details: { label: 'From npm' },
    settings: {
      environment: 'cpu', language: 'python3-1', license: 'apl', network_access: 'full', pipeline_enabled: true,
      source_visibility: 'closed',
    },
  });
  const compiled = await manage('POST', `${path}/compile`, {});
  const hash = compiled.version_info.git_hash;
  await manage('POST', `${path}/version`, { version_info: { version_type: 'minor', sample_input: '"John"' } });
  await manage('GET', `${path}/versions?callable=false&limit=50&published=true`);
  const builds = await manage('GET', `${path}/builds?limit=50`);
  await manage('GET', `${path}/builds/${builds.results[0].build_id}/logs`);
  for (const version of ['', `/${hash}`, '/0.1.0', '?stdout=true']) {
    const answer = await call(`${owner}/from_npm${version}`, 'John');
    console.log(JSON.stringify({ result: answer.get(), version }));
  }
  await manage('DELETE', path);
  await manage('GET', path);
}

main();
