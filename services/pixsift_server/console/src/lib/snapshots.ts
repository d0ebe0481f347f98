// Words of snapshots.
export const STATES: Record<string, string> = {
  resolved: "Chosen, not copied yet",
  copying: "Being copied",
  published: "Published",
  failed: "Failed",
};
