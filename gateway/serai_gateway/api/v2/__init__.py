"""The Open Inference Protocol v2, for models: `/v2/models/OWNER/NAME[/MODEL][/versions/VERSION]/infer` and the rest.

routes ──▶ names (which model, which action) ──▶ models (may they, which version)
       ├─▶ infer ──▶ infer_request (bytes to `Infer`) ──▶ dispatch ──▶ infer_answer (`Inferred` to bytes)
       └─▶ metadata, statistics, repository

Tensors pass through as bytes or as JSON text: nothing here looks at a number.
"""
