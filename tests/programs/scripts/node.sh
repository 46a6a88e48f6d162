# Node: files, children, workers, HTTP, timers.
# root: full
cat > /tmp/t.js <<'X'
const fs = require('fs'), http = require('http'), cp = require('child_process'), os = require('os'), { Worker, isMainThread, parentPort } = require('worker_threads'), crypto = require('crypto'), net = require('net');
if (!isMainThread) { let s = 0; for (let i = 0; i < 1e6; i++) s += i; parentPort.postMessage(s); } else (async () => {
  console.log(process.platform, process.arch, os.cpus().length > 0);
  fs.writeFileSync('/tmp/nf', 'x'.repeat(100000)); console.log((await fs.promises.readFile('/tmp/nf')).length);
  console.log(cp.execSync('echo child').toString().trim(), cp.spawnSync('sh', ['-c', 'exit 4']).status);
  console.log(await Promise.all([1, 2, 3].map(() => new Promise(r => new Worker(__filename).on('message', r)))));
  const s = http.createServer((q, r) => { let b = ''; q.on('data', d => b += d).on('end', () => r.end(q.method + ' ' + q.url + ' ' + b.length)); });
  await new Promise(r => s.listen(0, '127.0.0.1', r));
  const get = (p, b) => new Promise(r => { const q = http.request({ port: s.address().port, host: '127.0.0.1', path: p, method: b ? 'POST' : 'GET' }, x => { let t = ''; x.on('data', d => t += d).on('end', () => r(t)); }); q.end(b); });
  console.log(await Promise.all([get('/a'), get('/b', 'y'.repeat(500000)), ...Array.from({ length: 50 }, (_, i) => get('/' + i))]).then(a => a.join(',')));
  s.close();
  console.log(await new Promise(r => crypto.pbkdf2('p', 's', 10000, 16, 'sha256', (e, k) => r(k.toString('hex')))));
  const w = fs.watch('/tmp/watched.d' && (fs.mkdirSync('/tmp/watched.d'), '/tmp/watched.d')); const ev = new Promise(r => w.once('change', (t, n) => r(t + ' ' + n))); setTimeout(() => fs.writeFileSync('/tmp/watched.d/f', ''), 50); console.log(await ev); w.close();
  const u = net.createServer(c => c.end('over unix')).listen('/tmp/sock', () => net.connect('/tmp/sock').on('data', d => { console.log(d.toString()); u.close(); }));
  process.on('SIGUSR2', () => { console.log('signal'); }); process.kill(process.pid, 'SIGUSR2');
  await new Promise(r => setTimeout(r, 100));
})();
X
node /tmp/t.js
