"""A guard inside other people's evaluations: inspect-ai (inspect_model, extra `inspect`) and garak (garak_generator,
extra `garak`). Each module needs its own package, so import the one you use. Anything that speaks OpenAI's API needs
neither: it talks to `constclf serve`.
"""
