// Command helm4 is the judge for Helm 4: it says what Helm 4's own loader makes of an index.
package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"os"
	"strings"

	"github.com/Masterminds/semver/v3"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	repo "helm.sh/helm/v4/pkg/repo/v1"
	"sigs.k8s.io/yaml"

	"chandlery.test/judge/protocol"
)

func main() {
	err := protocol.Serve(os.Stdin, os.Stdout, protocol.Loader{
		Load:    func(path string) (any, error) { return repo.LoadIndexFile(path) },
		Decode:  decode,
		Resolve: repo.ResolveReferenceURL,
		Compare: compare,
		CaptureLog: func(writer io.Writer) {
			withoutTime := func(_ []string, attribute slog.Attr) slog.Attr {
				if attribute.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return attribute
			}
			options := &slog.HandlerOptions{ReplaceAttr: withoutTime}
			slog.SetDefault(slog.New(slog.NewTextHandler(writer, options)))
		},
	})
	if err != nil {
		log.SetOutput(os.Stderr)
		log.Fatal(err)
	}
}

// decode does what loadIndex of pkg/repo does, except that it does not sort.
func decode(data []byte) (any, error) {
	index := &repo.IndexFile{}
	var err error
	if json.Valid(data) {
		err = json.Unmarshal(data, index)
	} else {
		err = yaml.UnmarshalStrict(data, index)
	}
	if err != nil {
		return nil, err
	}
	for name, versions := range index.Entries {
		kept := repo.ChartVersions{}
		for _, version := range versions {
			if version == nil {
				continue
			}
			if version.Metadata == nil {
				version.Metadata = &chart.Metadata{}
			}
			if version.APIVersion == "" {
				version.APIVersion = chart.APIVersionV1
			}
			if isCarried(version.Validate()) {
				kept = append(kept, version)
			}
		}
		index.Entries[name] = kept
	}
	return index, nil
}

func isCarried(err error) bool {
	var validation chart.ValidationError
	return err == nil || errors.As(err, &validation) &&
		strings.HasPrefix(validation.Error(), "validation: more than one dependency with name or alias")
}

func compare(a, b string) (int, bool) {
	first, err := semver.NewVersion(a)
	if err != nil {
		return 0, false
	}
	second, err := semver.NewVersion(b)
	if err != nil {
		return 0, false
	}
	return first.Compare(second), true
}
