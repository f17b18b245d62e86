"""How the shipped lab was made and measured, stage by stage; the command is `python -m constclf_lib.build`."""
