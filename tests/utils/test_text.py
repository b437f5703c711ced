"""Text for messages and tables."""

import pytest

from hrseg.utils.text import one_line, percent, printable, printable_message, reason, some


def test_control_characters_and_direction_overrides_are_escaped():
    message = printable_message("no file a\x1b[2J\x9b\u202egnp\udcff\r\nline two")
    assert message == "no file a\\x1b[2J\\x9b\\u202egnp\\udcff\\r\nline two"


def test_letters_of_all_languages_are_unchanged():
    text = "Straße 道路 дорога\tशहर क्\u200dष 🚗\nb"
    assert printable(text) == text


def test_a_line_of_a_megabyte_is_shortened():
    message = printable_message(f"{'a' * 10**6} is no class\nexpected another")
    assert len(message) < 1000 and message.endswith("is no class\nexpected another")


def test_the_newline_of_a_name_is_escaped():
    assert one_line("a\nhrseg: all is well") == "a\\nhrseg: all is well"


def test_a_list_is_shortened_to_its_first_names_and_a_count():
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c", "d", "e\n"]) == "a, b, c and 2 more"


def test_an_undefined_ratio_is_a_dash():
    assert (percent(0.12345), percent(None)) == ("12.35", "-")


CALL = (
    "std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, "
    "const char*, const char*, ERRTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; "
    "bool THRW = true; std::conditional_t<THRW, void, onnxruntime::common::Status> = void] "
)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (  # onnxruntime-gpu 1.31.1 with a driver that cannot start
            "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 "
            "static onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::"
            "FromProviderOptions(const onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : "
            "FAIL : provider_options_utils.h:187 Parse "
            'Failed to parse provider option "device_id": '
            "CUDA failure 34: CUDA driver is a stub library ; GPU=-1 ; hostname=vm ; "
            "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc "
            "; line=70 ; expr=cudaGetDeviceCount(&num_devices); \n",
            '[ONNXRuntimeError] : 1 : FAIL : Failed to parse provider option "device_id": '
            "CUDA failure 34: CUDA driver is a stub library",
        ),
        (  # onnxruntime-gpu 1.31.1 without TensorRT
            "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::"
            "python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const "
            "onnxruntime::ProviderOptions&) Please install TensorRT libraries.\n",
            "Please install TensorRT libraries.",
        ),
        (  # as reported by users of release 1.17
            f"/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:121 {CALL}"
            f"/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:114 {CALL}"
            "CUDA failure 100: no CUDA-capable device is detected ; GPU=32712 ; hostname=HOME",
            "CUDA failure 100: no CUDA-capable device is detected",
        ),
        (  # OpenVINO
            "Exception from src/core/runtime.cpp:1:\nCheck 'x' failed at y.cpp:2:\nNo such file",
            "No such file",
        ),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_of_a_runtime_error_has_no_source_lines(message, expected):
    assert reason(RuntimeError(message)) == expected
