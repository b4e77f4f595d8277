// Command pack compresses programs into the folder that the bundle package embeds, each with its digest beside it. A
// program whose digest is there already is left alone, which keeps the Go build cache valid.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

func main() {
	out := flag.String("out", "", "folder to write to")
	flag.Parse()
	if *out == "" || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: pack -out FOLDER PROGRAM…")
		os.Exit(2)
	}
	for _, program := range flag.Args() {
		if err := pack(program, *out); err != nil {
			fmt.Fprintf(os.Stderr, "pack %s: %v\n", program, err)
			os.Exit(1)
		}
	}
}

func pack(program, out string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	base := filepath.Join(out, filepath.Base(program))
	if have, err := os.ReadFile(base + ".sha256"); err == nil && string(have) == digest {
		return nil
	}
	var packed bytes.Buffer
	writer, err := zstd.NewWriter(&packed, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return err
	}
	if _, err := writer.Write(content); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(base+".zst", packed.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(base+".sha256", []byte(digest), 0o644)
}
