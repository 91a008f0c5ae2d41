/** How much memory this process holds. Plain JavaScript, for processes that load nothing else. */
import { readFileSync, writeFileSync } from 'node:fs';

/**
 * Resident bytes, and the most there were since the start or the last reset: from proc(5), elsewhere
 * from the operating system's account of the whole process.
 */
export function readMemory() {
  try {
    const status = readFileSync('/proc/self/status', 'utf8');
    const bytesOf = (name) =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)[1]) * 1024;
    return { residentBytes: bytesOf('VmRSS'), peakBytes: bytesOf('VmHWM') };
  } catch {
    const peakBytes = process.resourceUsage().maxRSS * 1024;
    return { residentBytes: process.memoryUsage.rss(), peakBytes };
  }
}

/** Begins to count the peak anew; false where the system does not know how (Linux does). */
export function resetPeak() {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    return true;
  } catch {
    return false;
  }
}
