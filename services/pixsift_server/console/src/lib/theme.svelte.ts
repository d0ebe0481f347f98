// Light, dark, or as the system says; kept in this browser.
export type Theme = "system" | "light" | "dark";
const KEY = "pixsift.theme";
const THEMES: Theme[] = ["system", "light", "dark"];

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY) as Theme | null;
    return value && THEMES.includes(value) ? value : "system";
  } catch {
    return "system"; // storage is switched off
  }
}

export const theme = $state({ chosen: stored() });

export function applyTheme(): void {
  const root = document.documentElement;
  if (theme.chosen === "system") root.removeAttribute("data-theme");
  else root.setAttribute("data-theme", theme.chosen);
}

export function nextTheme(): void {
  theme.chosen = THEMES[(THEMES.indexOf(theme.chosen) + 1) % THEMES.length] ?? "system";
  try {
    localStorage.setItem(KEY, theme.chosen);
  } catch {
    // The choice holds until the page is closed.
  }
  applyTheme();
}
