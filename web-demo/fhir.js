// One line about a FHIR R4 resource, for people. Knows nothing of streams.

/** @returns {{title: string, value: string, subject: string, when: string, status: string}} */
export function summary(resource) {
  if (!resource || typeof resource !== 'object') return { title: '', value: '', subject: '', when: '', status: '' };
  const teller = TELLERS[resource.resourceType] ?? other;
  return { status: resource.status ?? '', ...teller(resource) };
}

const TELLERS = {
  Observation: (resource) => ({
    title: concept(resource.code),
    value: value(resource) || (resource.component ?? []).map(component).filter(Boolean).join(' · '),
    subject: reference(resource.subject),
    when: resource.effectiveDateTime ?? resource.effectivePeriod?.start ?? resource.issued ?? '',
  }),
  Encounter: (resource) => ({
    title: concept(resource.type?.[0]) || resource.class?.display || resource.class?.code || 'Encounter',
    value: (resource.reasonCode ?? []).map(concept).filter(Boolean).map(words).join(', '),
    subject: reference(resource.subject),
    when: resource.period?.start ?? '',
  }),
  Patient: (resource) => ({
    title: name(resource.name?.[0]) || 'Patient',
    value: [resource.gender, resource.birthDate && `born ${resource.birthDate}`, resource.address?.[0]?.city].filter(Boolean).join(', '),
    subject: `Patient/${resource.id ?? ''}`,
    when: '',
  }),
  MedicationRequest: (resource) => ({
    title: concept(resource.medicationCodeableConcept) || reference(resource.medicationReference) || 'Medication',
    value: (resource.dosageInstruction ?? []).map(dosage).filter(Boolean).join('; '),
    subject: reference(resource.subject),
    when: resource.authoredOn ?? '',
  }),
};

function other(resource) {
  return {
    title: [resource.resourceType, resource.id].filter(Boolean).join('/') || 'Event',
    value: '',
    subject: reference(resource.subject),
    when: '',
  };
}

function concept(concept) {
  const text = concept?.text ?? concept?.coding?.find((coding) => coding.display)?.display ?? concept?.coding?.[0]?.code ?? '';
  return text.replace(/ \((qualifier value|procedure|finding|disorder|situation)\)$/, '');
}

function value(holder) {
  const quantity = holder.valueQuantity;
  if (quantity) return `${rounded(quantity.value)} ${unit(quantity.unit ?? quantity.code)}`.trim();
  if (holder.valueCodeableConcept) return concept(holder.valueCodeableConcept);
  for (const key of ['valueString', 'valueInteger', 'valueBoolean', 'valueDateTime']) {
    if (holder[key] !== undefined) return String(holder[key]);
  }
  return '';
}

function component(part) {
  const told = value(part);
  return told && `${concept(part.code)} ${told}`;
}

function rounded(number) {
  return typeof number === 'number' ? String(Math.round(number * 100) / 100) : String(number ?? '');
}

function unit(code) {
  return (code ?? '').replace(/^\{(.*)\}$/, '$1').replace(/\[|\]/g, '');
}

function name(human) {
  if (!human) return '';
  return human.text ?? [...(human.prefix ?? []), ...(human.given ?? []), human.family].filter(Boolean).join(' ');
}

function reference(target) {
  return target?.display || target?.reference || '';
}

function dosage(instruction) {
  const dose = instruction.doseAndRate?.[0]?.doseQuantity?.value;
  const repeat = instruction.timing?.repeat;
  const often = repeat?.frequency && `${repeat.frequency} × every ${repeat.period ?? 1} ${repeat.periodUnit ?? ''}`.trim();
  return instruction.text ?? [dose !== undefined && `dose ${dose}`, often].filter(Boolean).join(', ');
}

function words(text) {
  return text.replaceAll('_', ' ');
}
