"""The commands of `workbench`, by subject. Each calls one public function and says what came of it; `workbench.cli`
parses, prints and ends."""
