"""Which fields of KubeRay's custom resources our manifests use, as facts of its published CRDs (ray.io_rayclusters.yaml and
ray.io_rayjobs.yaml of its operator, version 1.7.0): path, type, allowed values, what is required beside it.

Made anew, with every manifest checked against the whole schemas, from a folder that holds these two files:

    python -m tests.deploy.kuberay_fields FOLDER
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kuberay"
FIELDS = Path(__file__).with_name("kuberay_fields.json")

SAME = {"RayJob.spec.rayClusterSpec": "RayCluster.spec"}
"""Fields that are listed once, under the second path."""

Fields = dict[str, dict[str, Any]]


def custom_resources() -> Iterator[dict[str, Any]]:
    for file in sorted(MANIFESTS.glob("*.yaml")):
        yield from (each for each in yaml.safe_load_all(file.read_text()) if each["apiVersion"].startswith("ray.io/"))


def faults(value: Any, path: str, fields: Fields) -> Iterator[str]:
    """What is wrong with a manifest, or part of one, at a path such as `RayCluster.spec.workerGroupSpecs[].groupName`."""
    path = SAME.get(path, path)
    known = fields.get(path)
    if known is None:
        yield f"{path}: no such field, or one that is new here (python -m tests.deploy.kuberay_fields)"
        return
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "any": (int, str)}
    if not isinstance(value, types[known["type"]]) or (known["type"] == "integer" and isinstance(value, bool)):
        yield f"{path}: {value!r} is not of type {known['type']}"
    elif known.get("values") and value not in known["values"]:
        yield f"{path}: {value!r} is none of {known['values']}"
    elif isinstance(value, list):
        for each in value:
            yield from faults(each, f"{path}[]", fields)
    elif isinstance(value, dict):
        yield from (f"{path}: lacks {name}" for name in known.get("required", ()) if name not in value)
        for name, each in value.items():
            # Labels, limits and parameters have names of one's own.
            yield from faults(each, f"{path}.{'*' if f'{path}.*' in fields else name}", fields)


def _schema(folder: Path, kind: str) -> dict[str, Any]:
    crd = yaml.safe_load((folder / f"ray.io_{kind.lower()}s.yaml").read_text())
    (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    return dict(version["schema"]["openAPIV3Schema"])


def _used(value: Any, schema: dict[str, Any], path: str, fields: Fields) -> None:
    """Add the fields of a manifest, as the schema has them."""
    path = SAME.get(path, path)
    kind = "any" if schema.get("x-kubernetes-int-or-string") else schema["type"]
    fact = {"type": kind} | ({"values": schema["enum"]} if "enum" in schema else {})
    required = [name for name in schema.get("required", ()) if isinstance(value, dict) and name in value]
    fields.setdefault(path, fact | ({"required": required} if required else {}))
    if isinstance(value, list):
        for each in value:
            _used(each, schema["items"], f"{path}[]", fields)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in schema.get("properties", {}):
                _used(each, schema["properties"][name], f"{path}.{name}", fields)
            elif isinstance(schema.get("additionalProperties"), dict):
                _used(each, schema["additionalProperties"], f"{path}.*", fields)
            elif path.endswith(".metadata") and path.count(".") == 1:
                fields.setdefault(f"{path}.{name}", {"type": "string"})
            else:
                raise SystemExit(f"{path}.{name} is not in the schema")


def main(folder: Path) -> None:
    import jsonschema

    fields: Fields = {}
    for manifest in custom_resources():
        schema = _schema(folder, manifest["kind"])
        for problem in jsonschema.Draft7Validator(schema).iter_errors(manifest):
            raise SystemExit(f"{manifest['kind']}: {list(problem.absolute_path)}: {problem.message}")
        _used(manifest, schema, manifest["kind"], fields)
    FIELDS.write_text(json.dumps(fields, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(fields)} fields")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
