// Package protocol is what the two judges share: it reads requests as JSON lines, has Helm load
// the index, and answers with Helm's view of it as one JSON line each. It adds no opinion of its
// own; whatever Helm's structs hold is dumped by reflection, so that no field can be forgotten.
package protocol

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Loader is one version of Helm.
type Loader struct {
	// Load is Helm's own LoadIndexFile.
	Load func(path string) (any, error)
	// Decode decodes and validates as Load does, but leaves the records in the order of the file.
	Decode func(data []byte) (any, error)
	// Resolve is Helm's own ResolveReferenceURL.
	Resolve func(baseURL, refURL string) (string, error)
	// Compare is the order of versions by which Helm sorts; false where Helm cannot parse one.
	Compare func(a, b string) (int, bool)
	// CaptureLog sends what Helm logs to the writer.
	CaptureLog func(io.Writer)
}

type request struct {
	ID json.RawMessage `json:"id"`
	// Either Path or Data, the bytes in base64.
	Path string `json:"path"`
	Data []byte `json:"data"`
	// BaseURL asks for the URLs as resolved against it.
	BaseURL *string `json:"baseUrl"`
	// Mode is view (the default), digest or count.
	Mode string `json:"mode"`
	// Order is helm (the default) or file.
	Order string `json:"order"`
	// Compare asks for the order of pairs of versions instead of an index.
	Compare [][2]string `json:"compare"`
}

type response struct {
	ID       json.RawMessage `json:"id"`
	OK       bool            `json:"ok"`
	Error    string          `json:"error,omitempty"`
	Skipped  []string        `json:"skipped,omitempty"`
	View     any             `json:"view,omitempty"`
	Compared []any           `json:"compared,omitempty"`
}

type digestRecord struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Record  string `json:"record"`
	URLs    string `json:"urls"`
}

type countView struct {
	Charts   int `json:"charts"`
	Versions int `json:"versions"`
}

// Serve answers requests until the input ends.
func Serve(input io.Reader, output io.Writer, loader Loader) error {
	reader := bufio.NewReaderSize(input, 1<<16)
	writer := bufio.NewWriterSize(output, 1<<16)
	var logged bytes.Buffer
	loader.CaptureLog(&logged)
	for {
		line, err := reader.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			logged.Reset()
			if err := respond(writer, line, loader, &logged); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func respond(writer *bufio.Writer, line []byte, loader Loader, logged *bytes.Buffer) error {
	answer := handle(line, loader)
	for text := range strings.Lines(logged.String()) {
		answer.Skipped = append(answer.Skipped, strings.TrimSuffix(text, "\n"))
	}
	encoder := json.NewEncoder(writer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(answer); err != nil {
		return err
	}
	return writer.Flush()
}

func handle(line []byte, loader Loader) (answer response) {
	var asked request
	defer func() {
		if problem := recover(); problem != nil {
			answer = response{ID: asked.ID, Error: fmt.Sprintf("panic: %v", problem)}
		}
	}()
	if err := json.Unmarshal(line, &asked); err != nil {
		return response{Error: "judge: bad request: " + err.Error()}
	}
	if asked.Compare != nil {
		compared := []any{}
		for _, pair := range asked.Compare {
			if sign, ok := loader.Compare(pair[0], pair[1]); ok {
				compared = append(compared, sign)
			} else {
				compared = append(compared, nil)
			}
		}
		return response{ID: asked.ID, OK: true, Compared: compared}
	}
	index, err := load(asked, loader)
	if err != nil {
		return response{ID: asked.ID, Error: err.Error()}
	}
	return response{ID: asked.ID, OK: true, View: view(index, asked, loader)}
}

func load(asked request, loader Loader) (any, error) {
	path := asked.Path
	if path == "" {
		file, err := os.CreateTemp("", "judge-*.yaml")
		if err != nil {
			return nil, err
		}
		defer os.Remove(file.Name())
		if _, err = file.Write(asked.Data); err != nil {
			return nil, err
		}
		if err = file.Close(); err != nil {
			return nil, err
		}
		path = file.Name()
	}
	index, err := loader.Load(path)
	if err != nil || asked.Order != "file" {
		return index, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return loader.Decode(data)
}

func view(index any, asked request, loader Loader) any {
	fields := reflect.ValueOf(index).Elem()
	entries := fields.FieldByName("Entries")
	switch asked.Mode {
	case "count":
		count := countView{Charts: entries.Len()}
		for _, key := range entries.MapKeys() {
			count.Versions += entries.MapIndex(key).Len()
		}
		return count
	case "digest":
		digests := []digestRecord{}
		each(entries, func(key string, record reflect.Value) {
			dumped := dumpRecord(record, asked, loader)
			version, _ := dumped["version"].(string)
			urls := dumped["urls"]
			if resolved, ok := dumped["resolved"]; ok {
				urls = resolved
			}
			delete(dumped, "urls")
			delete(dumped, "resolved")
			digests = append(digests, digestRecord{key, version, digest(dumped), digest(urls)})
		})
		return digests
	}
	dumped := dump(fields).(map[string]any)
	all := map[string]any{}
	for _, key := range entries.MapKeys() {
		all[key.String()] = []any{}
	}
	each(entries, func(key string, record reflect.Value) {
		all[key] = append(all[key].([]any), dumpRecord(record, asked, loader))
	})
	dumped["entries"] = all
	return dumped
}

func each(entries reflect.Value, visit func(key string, record reflect.Value)) {
	for _, key := range sorted(entries) {
		records := entries.MapIndex(key)
		for i := range records.Len() {
			visit(key.String(), records.Index(i).Elem())
		}
	}
}

func dumpRecord(record reflect.Value, asked request, loader Loader) map[string]any {
	dumped := dump(record).(map[string]any)
	if asked.BaseURL == nil {
		return dumped
	}
	resolved := []any{}
	urls, _ := dumped["urls"].([]any)
	for _, url := range urls {
		if absolute, err := loader.Resolve(*asked.BaseURL, url.(string)); err == nil {
			resolved = append(resolved, absolute)
		} else {
			resolved = append(resolved, nil)
		}
	}
	dumped["resolved"] = resolved
	return dumped
}

// digest is the SHA-256 of the canonical JSON; encoding/json sorts the keys of maps.
func digest(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	sum := sha256.Sum256(text.Bytes())
	return hex.EncodeToString(sum[:])
}

// dump turns a struct into what JSON can say: by the names of the json tags, embedded structs laid
// flat, times in UTC. A field with its zero value and an empty list or map are left away, because
// Helm treats them like an absent one; inside a list every element counts.
func dump(value reflect.Value) any {
	switch value.Kind() {
	case reflect.Pointer, reflect.Interface:
		if value.IsNil() {
			return nil
		}
		return dump(value.Elem())
	case reflect.Slice:
		list := make([]any, value.Len())
		for i := range list {
			list[i] = dump(value.Index(i))
		}
		return list
	case reflect.Map:
		dumped := map[string]any{}
		for _, key := range value.MapKeys() {
			dumped[key.String()] = dump(value.MapIndex(key))
		}
		return dumped
	case reflect.Struct:
		if instant, ok := value.Interface().(time.Time); ok {
			return instant.UTC().Format(time.RFC3339Nano)
		}
		return dumpStruct(value)
	}
	return value.Interface()
}

func dumpStruct(value reflect.Value) map[string]any {
	dumped := map[string]any{}
	for i := range value.NumField() {
		field, member := value.Type().Field(i), value.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "entries" || isEmpty(member) {
			continue
		}
		if field.Anonymous {
			for key, inner := range dump(member).(map[string]any) {
				if _, taken := dumped[key]; taken {
					panic("judge: two fields called " + key)
				}
				dumped[key] = inner
			}
			continue
		}
		if name == "" {
			name = field.Name
		}
		dumped[name] = dump(member)
	}
	return dumped
}

func isEmpty(value reflect.Value) bool {
	switch value.Kind() {
	case reflect.Slice, reflect.Map:
		return value.Len() == 0
	case reflect.Struct:
		instant, ok := value.Interface().(time.Time)
		return ok && instant.IsZero()
	}
	return value.IsZero()
}

func sorted(entries reflect.Value) []reflect.Value {
	keys := entries.MapKeys()
	compare := func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(keys, compare)
	return keys
}
