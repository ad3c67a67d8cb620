// Offers puts at an even pace through microsoft/etcd3 to a server that lets fewer through; see go/throttle.
const { Etcd3, EtcdError } = require('etcd3');

const calls = 300;
const client = new Etcd3({ hosts: `http://127.0.0.1:${process.argv[2]}` });
const told = { offered: calls, done: 0, refused: 0 };

async function put() {
  try {
    await client.put('throttled').value('node');
    told.done += 1;
  } catch (error) {
    // Behind a few refusals its breaker refuses by itself: that is the client's own doing.
    if (!/RESOURCE_EXHAUSTED|too many requests|circuit breaker/i.test(`${error.name} ${error.message}`)) throw error;
    told.refused += 1;
  }
}

async function main() {
  const open = [];
  for (let call = 0; call < calls; call += 1) {
    open.push(put());
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await Promise.all(open);
  client.close();
  console.log(JSON.stringify(told));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
