"""The page as a visitor has it: in headless Chromium, driven by Playwright."""
