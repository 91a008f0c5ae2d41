// Command helm-merge merges indexes with Helm 3's own library, as "helm repo index --merge" does it,
// and tells how long each phase took and how much memory it needed. It reads a plan from standard
// input and writes its figures to standard output, both as JSON.
package main

import (
	"encoding/json"
	"io"
	"log"
	"os"
	"runtime"
	"syscall"
	"time"

	"helm.sh/helm/v3/pkg/repo"
)

type plan struct {
	Out     string   `json:"out"`
	Members []member `json:"members"`
}

type member struct {
	Name string `json:"name"`
	Path string `json:"path"`
	// Salvaged is loaded where Helm refuses the index at Path.
	Salvaged string `json:"salvaged"`
}

type figures struct {
	ReadMs    float64  `json:"readMs"`
	MergeMs   float64  `json:"mergeMs"`
	SortMs    float64  `json:"sortMs"`
	WriteMs   float64  `json:"writeMs"`
	PeakBytes int64    `json:"peakBytes"`
	Charts    int      `json:"charts"`
	Versions  int      `json:"versions"`
	Refused   []string `json:"refused"`
}

func main() {
	measured, err := run(os.Stdin)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(measured)
	}
	if err != nil {
		log.SetOutput(os.Stderr)
		log.Fatal(err)
	}
}

func run(input io.Reader) (*figures, error) {
	var todo plan
	if err := json.NewDecoder(input).Decode(&todo); err != nil {
		return nil, err
	}
	// Helm logs each record that it skips.
	log.SetOutput(io.Discard)
	result := &figures{Refused: []string{}}

	var loaded []*repo.IndexFile
	for _, one := range todo.Members {
		started := time.Now()
		index, err := repo.LoadIndexFile(one.Path)
		if err != nil {
			// Only what is of use counts.
			result.Refused = append(result.Refused, one.Name)
			started = time.Now()
			if index, err = repo.LoadIndexFile(one.Salvaged); err != nil {
				return nil, err
			}
		}
		result.ReadMs += since(started)
		loaded = append(loaded, index)
	}

	started := time.Now()
	merged := repo.NewIndexFile()
	for _, index := range loaded {
		merged.Merge(index)
	}
	result.MergeMs = since(started)

	started = time.Now()
	merged.SortEntries()
	result.SortMs = since(started)

	started = time.Now()
	if err := merged.WriteFile(todo.Out, 0o644); err != nil {
		return nil, err
	}
	result.WriteMs = since(started)

	result.Charts = len(merged.Entries)
	for _, versions := range merged.Entries {
		result.Versions += len(versions)
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return nil, err
	}
	result.PeakBytes = int64(usage.Maxrss)
	if runtime.GOOS != "darwin" {
		result.PeakBytes *= 1024
	}
	return result, nil
}

func since(started time.Time) float64 {
	return float64(time.Since(started).Nanoseconds()) / 1e6
}
