from stages.imports import ROOT, direct_imports, imported_files, module_file

STAGES = ROOT / "stages"


def test_both_forms_of_import_are_read():
    assert STAGES / "parallel/distributed.py" in direct_imports(
        STAGES / "models/sicsrec.py"
    )  # from package import module
    assert STAGES / "models/layers.py" in direct_imports(STAGES / "models/sicsrec.py")  # from module import name


def test_imports_of_imports_are_followed():
    assert STAGES / "models/layers.py" not in direct_imports(STAGES / "pretrain.py")
    assert STAGES / "models/layers.py" in imported_files(STAGES / "pretrain.py")


def test_imports_under_type_checking_are_left_out():
    assert module_file("stages.models.baselines.material") not in imported_files(module_file("stages.models.systems"))
