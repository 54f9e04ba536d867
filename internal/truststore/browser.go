// SPDX-License-Identifier: Apache-2.0

package truststore

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// chromiumPolicy lists certificates, in base64, that Chromium and the browsers made
// of it trust besides their own, since version 128.
const chromiumPolicy = "CACertificates"

// ChromiumFile is the name of the policy that AddChromium adds.
const ChromiumFile = "openshell.json"

// AddChromium returns the files of a directory of managed policies by which one more
// certificate is trusted. Chromium takes a policy from one file only: where the
// image has this one already, that is the file that is changed.
func AddChromium(files map[string][]byte, ca *x509.Certificate) (map[string][]byte, error) {
	out := maps.Clone(files)
	if out == nil {
		out = map[string][]byte{}
	}
	certificate := base64.StdEncoding.EncodeToString(ca.Raw)
	added := false
	for _, name := range slices.Sorted(maps.Keys(files)) {
		policies, err := parseObject(files[name])
		if err != nil || policies[chromiumPolicy] == nil {
			continue // Chromium says what is wrong with it
		}
		list, ok := policies[chromiumPolicy].([]any)
		if !ok {
			return nil, fmt.Errorf("%s: %s is no list", name, chromiumPolicy)
		}
		policies[chromiumPolicy] = append(list, certificate)
		if out[name], err = json.Marshal(policies); err != nil {
			return nil, err
		}
		added = true
	}
	if added {
		return out, nil
	}
	data, err := json.Marshal(map[string]any{chromiumPolicy: []string{certificate}})
	if err != nil {
		return nil, err
	}
	out[ChromiumFile] = data
	return out, nil
}

// AddFirefox returns a policies.json by which Firefox trusts the certificate in a
// file, whose path it is given, besides what is in one of the image's. That may be
// empty.
func AddFirefox(file []byte, caFile string) ([]byte, error) {
	document := map[string]any{}
	if len(bytes.TrimSpace(file)) > 0 {
		var err error
		if document, err = parseObject(file); err != nil {
			return nil, err
		}
	}
	policies, err := member(document, "policies")
	if err != nil {
		return nil, err
	}
	certificates, err := member(policies, "Certificates")
	if err != nil {
		return nil, err
	}
	install, ok := certificates["Install"].([]any)
	if !ok && certificates["Install"] != nil {
		return nil, errors.New("policies.Certificates.Install is no list")
	}
	certificates["Install"] = append(install, caFile)
	return json.Marshal(document)
}

// member returns an object's member that is an object too, and makes it where it is
// missing.
func member(object map[string]any, name string) (map[string]any, error) {
	if object[name] == nil {
		object[name] = map[string]any{}
	}
	m, ok := object[name].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s is no object", name)
	}
	return m, nil
}

// parseObject reads a JSON object without losing digits.
func parseObject(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if object == nil || d.More() {
		return nil, errors.New("not one JSON object")
	}
	return object, nil
}
