import pytest

from hrseg.errors import ConfigError
from hrseg.inference.exported_model import check_onnx, check_openvino
from tests.hostile import Place
from tests.hostile.exported import ENTITY, GRAPHS, IR, LAUGHS
from tests.untrained import save_untrained


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    checkpoint = save_untrained(folder / "untrained.ckpt")
    return Place(folder, folder / "outside", 9, checkpoint, folder / "run", folder / "photo.png")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a loop without end", "an operator Loop"),
        ("data outside", r"weights in another file, '\.\./outside/secret.txt'"),
        ("data at an absolute path", "weights in another file"),
        ("sparse data outside", "sparse weights"),
    ],
)
def test_graphs_that_read_elsewhere_or_never_end_are_refused(name, said, place):
    pytest.importorskip("onnx")
    GRAPHS[name](place)
    with pytest.raises(ConfigError, match=said):
        check_onnx(place.given / "m.onnx")


def test_what_is_no_onnx_file_is_refused(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "m.onnx").write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    with pytest.raises(ConfigError, match=r"cannot read .*: invalid ONNX file"):
        check_onnx(tmp_path / "m.onnx")


LAYER = '<layer id="1" type="{}" version="opset1"/>'


def test_a_network_of_plain_layers_is_taken(tmp_path):
    (tmp_path / "m.xml").write_text(IR.format(head="", layers=LAYER.format("Add"), facts="{}"))
    check_openvino(tmp_path / "m.xml")


@pytest.mark.parametrize(
    ("head", "layer", "said"),
    [
        ("", "Loop", "a layer Loop"),
        ("", "TensorIt&#101;rator", "a layer TensorIterator"),
        (ENTITY, "Add", "declares entities"),
        (LAUGHS, "Add", "declares entities"),
        ("<net", "Add", "cannot read .*: invalid XML file"),
    ],
)
def test_networks_that_declare_or_never_end_are_refused(head, layer, said, tmp_path):
    text = IR.format(head=head, layers=LAYER.format(layer), facts="{}")
    (tmp_path / "m.xml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        check_openvino(tmp_path / "m.xml")
