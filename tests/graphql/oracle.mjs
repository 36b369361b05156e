// graphql-js executes what the projection claims to: one case per line in, one result per line out.
// {sdl, query, variables, event: {kind, cursor, key, time, data}} -> {data, errors: [path]} or {invalid: [message]}
//
// Nothing here knows how the gateway compiles anything: the directives are read from the SDL as graphql-js parsed it.

import {
  GraphQLBoolean, GraphQLError, GraphQLFloat, GraphQLID, GraphQLInt, GraphQLString,
  buildSchema, execute, getNullableType, isEnumType, isListType, isScalarType, parse, validate,
} from 'graphql';
import { hear, say } from './lines.mjs';

const DIRECTIVES = `
directive @stream(name: String!, emit: Emit! = EVENT, kinds: [ChangeKind!]) on FIELD_DEFINITION
directive @event on OBJECT
directive @attribute(name: String!, prefix: String) on ARGUMENT_DEFINITION
directive @json(pointer: String!, stripPrefix: String) on FIELD_DEFINITION
directive @jsonValue(is: String!) on ENUM_VALUE
directive @discriminator(pointer: String!) on INTERFACE | UNION
directive @discriminatorValue(is: String!) on OBJECT
enum Emit { EVENT ENTITY }
enum ChangeKind { CREATED UPDATED LEFT DELETED SNAPSHOT CHANGED PROGRESS GAP }
type Query { nothing: Int }
`;

function directive(node, name) {
  const found = node?.directives?.find((one) => one.name.value === name);
  return found && Object.fromEntries(found.arguments.map((one) => [one.name.value, one.value.value]));
}

function at(value, pointer) {
  if (pointer === '') return value;
  for (const raw of pointer.slice(1).split('/')) {
    const segment = raw.replaceAll('~1', '/').replaceAll('~0', '~');
    if (Array.isArray(value)) value = /^(0|[1-9][0-9]*)$/.test(segment) ? value[Number(segment)] : undefined;
    else if (value !== null && typeof value === 'object' && Object.hasOwn(value, segment)) value = value[segment];
    else return undefined;
  }
  return value;
}

// The prefix is that of the leaves: what stands where a list should be is none of the field's type, with or without it.
function strip(value, prefix, type) {
  const nullable = getNullableType(type);
  if (isListType(nullable)) {
    return Array.isArray(value) ? value.map((one) => strip(one, prefix, nullable.ofType)) : value;
  }
  if (typeof value === 'string') return value.startsWith(prefix) ? value.slice(prefix.length) : null;
  return value !== null && typeof value === 'object' ? value : null;
}

const wrong = () => { throw new GraphQLError('mismatch'); };
const STRICT = {
  Int: (value) => (Number.isInteger(value) && Math.abs(value + 0.5) < 2 ** 31 ? value : wrong()),
  Float: (value) => (Number.isFinite(value) ? value : wrong()),
  String: (value) => (['string', 'number', 'boolean'].includes(typeof value) ? String(value) : wrong()),
  Boolean: (value) => (typeof value === 'boolean' ? value : wrong()),
  ID: (value) => (typeof value === 'string' || Number.isInteger(value) ? String(value) : wrong()),
  DateTime: (value) => (typeof value === 'string' ? value : wrong()),
  Long: (value) => (Number.isInteger(value) ? value : wrong()),
};
for (const type of [GraphQLBoolean, GraphQLFloat, GraphQLID, GraphQLInt, GraphQLString]) {
  type.serialize = STRICT[type.name];
}

const schemas = new Map();

function schemaOf(sdl) {
  let schema = schemas.get(sdl);
  if (schema) return schema;
  schema = buildSchema(DIRECTIVES + sdl);
  for (const type of Object.values(schema.getTypeMap())) {
    if (isScalarType(type) && STRICT[type.name]) type.serialize = STRICT[type.name];
    if (isEnumType(type) && !type.name.startsWith('__') && type.name !== 'ChangeKind') {
      const names = new Map(type.getValues().map((value) => [directive(value.astNode, 'jsonValue')?.is ?? value.name, value.name]));
      type.serialize = (value) => (typeof value === 'string' && names.has(value) ? names.get(value) : wrong());
    }
  }
  schemas.set(sdl, schema);
  return schema;
}

function fieldResolver(source, _arguments, { event }, info) {
  if (info.parentType.name === 'Subscription') return event;
  if (source === event) return event[info.fieldName];
  const field = info.parentType.getFields()[info.fieldName];
  const json = directive(field.astNode, 'json');
  const value = at(source, json?.pointer ?? `/${info.fieldName}`);
  return json?.stripPrefix === undefined ? value : strip(value, json.stripPrefix, field.type);
}

function typeResolver(value, _context, info, type) {
  const said = at(value, directive(type.astNode, 'discriminator').pointer);
  const is = (one) => (directive(one.astNode, 'discriminatorValue')?.is ?? one.name) === said;
  return info.schema.getPossibleTypes(type).find(is)?.name;
}

hear(({ sdl, query, variables, event }) => {
  const schema = schemaOf(sdl);
  const document = parse(query);
  const invalid = validate(schema, document);
  if (invalid.length > 0) return say({ invalid: invalid.map((error) => error.message) });
  const result = execute({
    schema, document, variableValues: variables, contextValue: { event }, fieldResolver, typeResolver,
  });
  return say({ data: result.data, errors: (result.errors ?? []).map((error) => error.path) });
});
