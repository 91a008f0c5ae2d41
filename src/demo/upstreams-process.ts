/**
 * Entry point of the process that plays the demo's upstreams: generates the members, serves them
 * and does what its parent says. It ends with its parent, however that ends.
 */
import { setImmediate as yieldToEvents } from 'node:timers/promises';
import { serializeError } from '../errors.ts';
import type { DemoPlan, DemoRemote, DemoReport, DemoRequest } from './demo-messages.ts';
import { type DemoUpstreams, startDemoUpstreams } from './demo-upstreams.ts';
import { type GeneratedMember, generateMembers, memberAddresses } from './generate-members.ts';

let upstreams: DemoUpstreams | null = null;

// The channel closes when the parent closes it and when the parent dies, even by SIGKILL.
process.on('disconnect', () => process.exit(0));
if (!process.connected) process.exit(0);
// An interrupt from the terminal reaches both processes; the parent decides what it means.
process.on('SIGINT', () => {});
process.on('message', (request: DemoRequest) => {
  handle(request).then(
    (remotes) => report({ kind: 'done', id: request.id, remotes }),
    (error: unknown) => report({ kind: 'failed', id: request.id, error: serializeError(error) }),
  );
});

async function handle(request: DemoRequest): Promise<readonly DemoRemote[]> {
  switch (request.kind) {
    case 'start':
      return start(request.plan);
    case 'touch':
      return upstreams === null ? [] : [describe(upstreams.touch(request.name))];
    case 'behave':
      upstreams?.setBehaviour(request.name, request.behaviour);
      return [];
  }
}

async function start(plan: DemoPlan): Promise<readonly DemoRemote[]> {
  const { members, lines, seed, latencyMs } = plan;
  const started = await startDemoUpstreams({ members: memberAddresses(members), latencyMs });
  upstreams = started;
  const remotes: DemoRemote[] = [];
  for (const member of generateMembers({ members, lines, seed, baseUrlOf: started.baseUrlOf })) {
    started.publish(member);
    const remote = describe(member);
    remotes.push(remote);
    report({ kind: 'generated', remote });
    // Lets the report leave, and the end of the parent be noticed.
    await yieldToEvents();
  }
  return remotes;
}

function describe(member: GeneratedMember): DemoRemote {
  return { name: member.name, baseUrl: member.baseUrl, figures: member.figures };
}

/** A parent that is gone ends this process by itself: that the message is lost is no failure. */
function report(message: DemoReport): void {
  if (process.connected) process.send?.(message, () => {});
}
