// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"net/netip"
	"reflect"
)

// Schema returns the JSON schema (draft 2020-12) of the file, for editors.
func Schema() []byte {
	root := schemaOf(key{}, reflect.ValueOf(Default()))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "sentinel-x configuration"
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("config: schema: " + err.Error()) // built from our own types
	}
	return append(out, '\n')
}

type object = map[string]any

// schemaOf describes a key; v is its default.
func schemaOf(k key, v reflect.Value) object {
	s := typeSchema(k, v.Type())
	if v.Kind() == reflect.Struct && s["properties"] == nil && s["type"] == nil && s["anyOf"] == nil {
		properties := object{}
		for _, f := range fields(v.Type()) {
			properties[f.Tag.Get("yaml")] = schemaOf(key{field: f}, v.FieldByIndex(f.Index))
		}
		// A heading without keys under it is null.
		s = object{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	} else if k.field.Name != "" {
		s["default"] = v.Interface()
	}
	if desc := k.field.Tag.Get("desc"); desc != "" {
		s["description"] = desc
	}
	return s
}

// typeSchema describes every type but sections, for which it returns an empty object.
func typeSchema(k key, t reflect.Type) object {
	switch t {
	case reflect.TypeFor[Duration]():
		return object{"type": []string{"string", "integer"}, "pattern": `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$|^0$`, "maximum": 0, "minimum": 0}
	case reflect.TypeFor[Count]():
		return numberSchema(k, `^[0-9]+[kMG]?$`)
	case reflect.TypeFor[Bytes]():
		return numberSchema(k, `^[0-9]+([kMG]|KiB|MiB|GiB)?$`)
	case reflect.TypeFor[netip.Prefix]():
		return object{"type": "string", "pattern": `^[0-9a-fA-F.:]+(/[0-9]{1,3})?$`}
	case reflect.TypeFor[ListEntry]():
		return entrySchema()
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		s := object{"type": "string"}
		if words := k.enum(); words != nil {
			s["enum"] = words
		}
		return s
	case reflect.Uint32:
		low, high := bounds(k)
		return object{"type": "integer", "minimum": low, "maximum": high}
	case reflect.Float64:
		return object{
			"type":    "number",
			"minimum": json.Number(k.field.Tag.Get("min")), "maximum": json.Number(k.field.Tag.Get("max")),
		}
	case reflect.Slice:
		return object{"type": []string{"array", "null"}, "items": typeSchema(k, t.Elem())}
	}
	return object{}
}

func numberSchema(k key, pattern string) object {
	low, high := bounds(k)
	return object{"type": []string{"integer", "string"}, "minimum": low, "maximum": high, "pattern": pattern}
}

// entrySchema describes a list entry: a prefix, or an object with a comment.
func entrySchema() object {
	properties := object{}
	for _, f := range fields(reflect.TypeFor[ListEntry]()) {
		p := typeSchema(key{field: f}, f.Type)
		p["description"] = f.Tag.Get("desc")
		properties[f.Tag.Get("yaml")] = p
	}
	prefix := typeSchema(key{}, reflect.TypeFor[netip.Prefix]())
	return object{"anyOf": []object{prefix, {
		"type": "object", "properties": properties,
		"required": []string{"prefix"}, "additionalProperties": false,
	}}}
}
