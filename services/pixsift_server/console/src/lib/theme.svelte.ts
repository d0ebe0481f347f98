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

export const theme = $state({ chosen: stored(), isDark: false });

const system = matchMedia("(prefers-color-scheme: dark)");
system.addEventListener("change", () => applyTheme());

/** The page always says which one holds, so that each palette stands once in the style sheet. */
export function applyTheme(): void {
  theme.isDark = theme.chosen === "dark" || (theme.chosen === "system" && system.matches);
  document.documentElement.setAttribute("data-theme", theme.isDark ? "dark" : "light");
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
