/** Why a server cannot listen, and what to do about it. */

/** A sentence for a person; null where the failure is of another kind. */
export function describeListenFailure(
  error: unknown,
  address: { readonly host: string; readonly port: number },
): string | null {
  if (!(error instanceof Error)) return null;
  const { code, syscall } = error as NodeJS.ErrnoException;
  const { host, port } = address;
  const place = `cannot listen on ${host.includes(':') ? `[${host}]` : host}:${port}`;
  if (syscall !== 'listen' && syscall !== 'getaddrinfo') return null;
  switch (code) {
    case 'EADDRINUSE':
      return `${place}: the port is in use; choose another with --port, or 0 for any free one`;
    case 'EACCES':
      return `${place}: permission denied; ports below 1024 often need a privilege, choose another with --port`;
    case 'EADDRNOTAVAIL':
      return `${place}: this machine does not have that address; choose another with --host`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `${place}: the host name does not resolve; choose another with --host`;
    default:
      return `${place}: ${code ?? error.message}`;
  }
}
