/** nginx as a server of static files, beside which the real server is measured. */
import { type Nginx, startNginx } from '../../test/support/nginx.ts';

/**
 * Serves a directory as an operator would have it served: `sendfile`, files kept open, compressed files
 * made before, and `/health`. One process, as the event loop of the measured server is one thread.
 * Null where there is no nginx on the path.
 */
export function startStaticNginx(root: string): Promise<Nginx | null> {
  return startNginx({
    http: `
  types {
    application/yaml yaml;
    application/json json;
    application/gzip tgz;
  }
  sendfile on;
  tcp_nopush on;
  open_file_cache max=64;
  etag on;
  gzip_static on;
  keepalive_requests 1000000000;`,
    server: `
    root ${root};
    location = /health {
      default_type application/json;
      return 200 '{"status":"ok"}';
    }`,
  });
}
