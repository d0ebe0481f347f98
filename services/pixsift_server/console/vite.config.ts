import { readFileSync } from "node:fs";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

const SHIPPED = ["svelte", "@tanstack/virtual-core", "uplot"];

/** The licenses of what ends in the bundle, beside it. */
function licenses(): Plugin {
  return {
    name: "licenses",
    generateBundle() {
      const texts = SHIPPED.map((name) => {
        const folder = `node_modules/${name}`;
        const { version } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
        const file = ["LICENSE.md", "LICENSE"].find((each) => exists(`${folder}/${each}`));
        return `${name} ${version}\n\n${file ? readFileSync(`${folder}/${file}`, "utf8") : "MIT"}`;
      });
      this.emitFile({ type: "asset", fileName: "licenses.txt", source: texts.join("\n\n----\n\n") });
    },
  };
}

function exists(path: string): boolean {
  try {
    readFileSync(path);
    return true;
  } catch {
    return false;
  }
}

export default defineConfig({
  plugins: [svelte(), licenses()],
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    // A data: URL would need a hole in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
