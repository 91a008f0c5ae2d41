/** The virtual repository that the crash tests publish, known to both processes. */
import { indexOf } from '../support/app-fixture.ts';

export const CRASHING = { virtuals: { all: { members: ['one', 'two'] } } } as const;

/** What member `one` has, from one publish to the next; member `two` stays as it is. */
export const ONE = ['1.0.0', '2.0.0', '3.0.0'].map((version) => indexOf({ nginx: [version] }));
export const TWO = indexOf({ redis: ['7.0.0'] });
