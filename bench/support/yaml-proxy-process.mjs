/**
 * Entry point of a reverse proxy that asks for YAML whatever its client prefers, and changes nothing
 * else: so a client is served YAML that would be given JSON. Plain JavaScript for the reason of
 * `server-process.mjs`.
 */
import { Agent, createServer, request as openRequest } from 'node:http';

let target = '';
const agent = new Agent({ keepAlive: true });

const server = createServer((request, response) => {
  const { method, headers } = request;
  const options = { agent, method, headers: { ...headers, accept: 'application/yaml' } };
  const sent = openRequest(`${target}${request.url}`, options, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  sent.on('error', () => request.socket.destroy());
  sent.end();
});

const actions = {
  /** `url`: the server behind it, without a slash at its end. */
  async start({ url }) {
    target = url;
    await new Promise((resolve) => server.listen({ host: '127.0.0.1', port: 0 }, resolve));
    return { url: `http://127.0.0.1:${server.address().port}` };
  },

  async close() {
    server.close();
    server.closeAllConnections();
    agent.destroy();
    setImmediate(() => process.disconnect());
  },
};

process.on('disconnect', () => process.exit(0));
process.on('SIGINT', () => {});
process.on('message', ({ id, action, input }) => {
  actions[action](input).then(
    (value) => process.send({ id, value: value ?? null }),
    (error) => process.send({ id, error: String(error?.stack ?? error) }),
  );
});
