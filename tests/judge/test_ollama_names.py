import pytest

from stages.errors import InputError
from stages.judge.ollama_names import base_url, full_name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Glm4:9b", "glm4:9b"),
        ("qwen3:8b-q4_K_M", "qwen3:8b-Q4_K_M"),
        ("glm4", "glm4:latest"),
        ("library/glm4", "glm4"),
        ("registry.ollama.ai/library/glm4:9b", "glm4:9b"),
        ("localhost:5000/me/judge", "localhost:5000/me/judge:latest"),
        ("http://localhost:5000/me/judge", "localhost:5000/me/judge"),
        ("hf.co/Org/Model-GGUF:Q4_K_M", "hf.co/org/model-gguf:q4_k_m"),
    ],
)
def test_names_of_one_model_are_equal(one, other):
    assert full_name(one) == full_name(other)


@pytest.mark.parametrize(("one", "other"), [("glm4:9b", "glm4"), ("me/glm4", "glm4"), ("hf.co/me/glm4", "me/glm4")])
def test_names_of_different_models_differ(one, other):
    assert full_name(one) != full_name(other)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("gpu-box:8080", "http://gpu-box:8080"),
        ("gpu-box", "http://gpu-box:11434"),
        (" 10.0.0.7 ", "http://10.0.0.7:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[::]", "http://[::1]:11434"),
        ("http://gpu-box", "http://gpu-box:80"),
        ("https://gpu-box/ollama/", "https://gpu-box:443/ollama"),
    ],
)
def test_hosts_are_taken_as_ollama_takes_them(host, url):
    assert base_url(host) == url


@pytest.mark.parametrize("host", ["gpu-box:port", "gpu-box:99999", "ftp://gpu-box"])
def test_what_is_no_address_is_refused_with_its_mend(host):
    with pytest.raises(InputError, match=r"ollama\.hosts: .* write it as host:port"):
        base_url(host)
