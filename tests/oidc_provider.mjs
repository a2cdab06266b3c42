// An OpenID Connect provider for the tests: npm's oauth2-mock-server, made as strict as a real one.
//
//   node oidc_provider.mjs FOLDER KEY CERTIFICATE
//
// FOLDER holds node_modules. It takes the client job with the secret client-secret, and a refresh token once: each use
// gives another. On standard output it writes a line of JSON when it listens, and one for each token that is asked for; on
// standard input it takes lines of JSON that change how it behaves.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, key, certificate] = process.argv.slice(2);
const entry = pathToFileURL(`${folder}/node_modules/oauth2-mock-server/dist/index.mjs`);
const { OAuth2Server } = await import(entry);

const behaviour = { life: 3600, refresh: "first-refresh", opaque: false, body: null };
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const server = new OAuth2Server(key, certificate);
await server.issuer.keys.generate("ES256");
server.service.on("beforeTokenSigning", (token) => {
  token.payload.exp = Math.floor(Date.now() / 1000) + behaviour.life;
});
server.service.on("beforeResponse", (response, request) => {
  const { grant_type: grant, refresh_token: refresh, scope, audience } = request.body;
  const basic = Buffer.from((request.headers.authorization ?? "").replace(/^Basic /, ""), "base64").toString();
  const posted = `${request.body.client_id}:${request.body.client_secret}`;
  say({ grant, scope, audience, basic: basic !== "" });
  const refuse = (error) => {
    response.statusCode = 400;
    response.body = { error, error_description: `not ${basic} ${refresh}` };
  };
  if (basic !== "job:client-secret" && posted !== "job:client-secret") return refuse("invalid_client");
  if (grant === "refresh_token") {
    if (refresh !== behaviour.refresh) return refuse("invalid_grant");
    behaviour.refresh = response.body.refresh_token;
  }
  response.body.expires_in = behaviour.life;
  if (behaviour.opaque) response.body.access_token = "opaque-token";
  if (behaviour.body !== null) response.body = behaviour.body;
});
await server.start(0, "127.0.0.1");
server.issuer.url = `https://localhost:${server.address().port}`;
say({ issuer: server.issuer.url });

createInterface({ input: process.stdin })
  .on("line", (line) => {
    Object.assign(behaviour, JSON.parse(line));
    say({ changed: true });
  })
  .on("close", () => process.exit(0));
