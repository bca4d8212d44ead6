// `kstatus`: what the library by which Flux and others judge objects says of one, for tests that compare.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kstatus "sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// judge reads one object as JSON from stdin, and answers with its status and, after a tab, why.
func judge(_ layout, args []string) error {
	if len(args) != 0 {
		return errors.New("give nothing but an object as JSON on stdin")
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(text); err != nil {
		return err
	}
	result, err := kstatus.Compute(object)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s\t%s\n", result.Status, result.Message)
	return err
}
