"""Made-up requests by the OpenAPI document, and whether answers are what it says."""
