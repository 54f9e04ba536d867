// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"
)

// values makes values for the path parameters of one API. What a parameter's values look like is
// drawn once for its name, as a service decides once what its ids are; then each value
// is drawn afresh.
type values struct {
	api *API
	rng *rand.Rand
}

func newValues(api *API, seed uint64) *values {
	return &values{api, rand.New(rand.NewPCG(hash(api.Name), seed))}
}

func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return h.Sum64()
}

// style is the generator for what only belongs to the API and the parameter's name.
func (v *values) style(name string) *rand.Rand {
	return rand.New(rand.NewPCG(hash(v.api.Name), hash("style", name)))
}

var placeholder = regexp.MustCompile(`\{([^{}/]+)\}`)

// instance is a request's path for the operation.
func (v *values) instance(o *Operation) string {
	return placeholder.ReplaceAllStringFunc(o.Path, func(p string) string {
		name := p[1 : len(p)-1]
		reserved := strings.HasPrefix(name, "+")
		name = strings.Trim(name, "+*?")
		if i := strings.IndexAny(name, "=:"); i > 0 {
			name = name[:i]
		}
		if v.isResourceName(o, p, name) {
			return v.resourceName(o, name)
		}
		s := v.value(name, v.api.schema(o, name))
		return escape(s, reserved || strings.HasPrefix(v.api.schema(o, name).Pattern, "^") && strings.Contains(v.api.schema(o, name).Pattern, "/[^/]+"))
	})
}

// isResourceName reports whether a parameter is a name in the sense of Google's AIP-122, which has several
// segments, "projects/p/locations/l"; the descriptions have lost the `+` that says so.
func (v *values) isResourceName(o *Operation, p, name string) bool {
	before, _, _ := strings.Cut(o.Path, p)
	parts := strings.Split(strings.Trim(before, "/"), "/")
	return v.api.Provider() == "googleapis.com" && version.MatchString(parts[len(parts)-1]) && v.api.schema(o, name).Format == "" &&
		slices.Contains([]string{"name", "parent", "resource", "path"}, name)
}

var version = regexp.MustCompile(`^v[0-9][0-9a-z.]*$`)

// resourceName is such a name: of collections that the operation's are, and ids.
func (v *values) resourceName(o *Operation, name string) string {
	out := "projects/" + v.slug("project")
	style := v.style("collections " + o.Path)
	if v.style("parent").IntN(3) > 0 {
		out += "/locations/" + pick(v.rng, regions)
	}
	if name != "parent" || style.IntN(3) == 0 {
		collection := pick(style, nouns)
		out += "/" + strings.TrimSuffix(collection, "s") + "s/" + v.id(collection)
	}
	return out
}

// escape encodes a value as clients do in a segment, in the form that a path is decided on in.
func escape(s string, slashes bool) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~!$&'()*+,=:@", c) >= 0, c == '/' && slashes:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// value is one of a parameter's values: by enum, format, pattern, type, example and name.
func (v *values) value(name string, s Schema) string {
	if len(s.Enum) > 0 {
		return pick(v.rng, s.Enum)
	}
	if out := v.byFormat(s.Format); out != "" {
		return out
	}
	switch s.Type {
	case "integer":
		return v.number(name)
	case "number":
		if v.style(name).IntN(4) == 0 {
			return fmt.Sprintf("%.2f", v.rng.Float64()*100)
		}
		return v.number(name)
	case "boolean":
		return pick(v.rng, []string{"true", "false"})
	}
	named := func() string {
		if out := v.byExample(s.Example); out != "" {
			return out
		}
		return v.byName(name)
	}
	if s.Pattern == "" {
		return named()
	}
	expr, err := regexp.Compile(s.Pattern)
	if err != nil {
		return named()
	}
	for range 8 {
		if out := named(); expr.MatchString(out) {
			return out
		}
	}
	if out, ok := fromPattern(v.rng, s.Pattern); ok && expr.MatchString(out) {
		return out
	}
	return named()
}

func (v *values) byFormat(format string) string {
	switch strings.ToLower(format) {
	case "uuid", "guid":
		return v.uuid()
	case "date":
		return v.time().Format(time.DateOnly)
	case "date-time", "datetime":
		return v.time().Format(time.RFC3339)
	case "email":
		return v.email()
	case "ip", "ipv4", "ipvanyaddress":
		return v.ip()
	case "iso-country-code":
		return pick(v.rng, countries)
	case "hostname":
		return v.host()
	}
	return ""
}

// byExample varies an example: its digits, and the letters of a part that has both. An example that is
// made of words says only what the name says, too, and is empty.
func (v *values) byExample(example string) string {
	if !strings.ContainsAny(example, "0123456789") || len(example) > 100 || strings.ContainsAny(example, "{} ") {
		return ""
	}
	b := []byte(example)
	for start := 0; start < len(b); {
		end := start
		for end < len(b) && isAlphanumeric(b[end]) {
			end++
		}
		part := b[start:end]
		if digits := strings.IndexAny(string(part), "0123456789"); digits >= 0 {
			isNumber := strings.Trim(string(part), "0123456789") == ""
			letters := !isNumber && (len(part) >= 6 || digits == 0)
			isHex := strings.Trim(string(part), "0123456789abcdef") == ""
			for i := range part {
				part[i] = v.like(part[i], letters, isHex)
			}
		}
		start = end + 1
	}
	return string(b)
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (v *values) like(c byte, letters, isHex bool) byte {
	switch {
	case letters && isHex:
		return "0123456789abcdef"[v.rng.IntN(16)]
	case '0' <= c && c <= '9':
		return byte('0' + v.rng.IntN(10))
	case letters && 'a' <= c && c <= 'z':
		return byte('a' + v.rng.IntN(26))
	case letters:
		return byte('A' + v.rng.IntN(26))
	}
	return c
}

// split divides a parameter's name into its words, in lower case.
func splitName(name string) []string {
	var words []string
	var word []byte
	flush := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
			word = nil
		}
	}
	for i := range len(name) {
		c := name[i]
		upper := 'A' <= c && c <= 'Z'
		if !isAlphanumeric(c) {
			flush()
			continue
		}
		if upper && i > 0 && !('A' <= name[i-1] && name[i-1] <= 'Z') {
			flush()
		}
		word = append(word, c)
	}
	flush()
	return words
}

// meanings tells what a parameter holds by the last word of its name that says so.
var meanings = []struct {
	words []string
	make  func(v *values, name string) string
}{
	{strings.Fields("id ids identifier oid pk sid aid pid uid gid"), (*values).id},
	{strings.Fields("uuid guid"), func(v *values, _ string) string { return v.uuid() }},
	{strings.Fields("sha sha1 hash commit digest checksum fingerprint thumbprint md5"), func(v *values, _ string) string { return v.hex(40) }},
	{strings.Fields("token secret apikey nonce signature cursor hmac"), func(v *values, _ string) string { return v.base62(32) }},
	{strings.Fields("email mail"), func(v *values, _ string) string { return v.email() }},
	{strings.Fields("user username login owner author assignee member handle nickname screenname principal creator"), (*values).username},
	{strings.Fields("year"), func(v *values, _ string) string { return fmt.Sprint(2010 + v.rng.IntN(17)) }},
	{strings.Fields("month"), func(v *values, _ string) string { return fmt.Sprint(1 + v.rng.IntN(12)) }},
	{strings.Fields("day"), func(v *values, _ string) string { return fmt.Sprint(1 + v.rng.IntN(28)) }},
	{strings.Fields("date from to since until start end"), func(v *values, _ string) string { return v.time().Format(time.DateOnly) }},
	{strings.Fields("time timestamp datetime"), func(v *values, _ string) string { return v.time().Format(time.RFC3339) }},
	{strings.Fields("number num no count page size limit offset position level season episode width height zoom x y z"), (*values).number},
	{strings.Fields("latitude longitude lat lon lng"), func(v *values, _ string) string { return fmt.Sprintf("%.4f", v.rng.Float64()*180-90) }},
	{strings.Fields("locale language lang culture languagecode"), func(v *values, _ string) string { return pick(v.rng, locales) }},
	{strings.Fields("country countrycode"), func(v *values, _ string) string { return pick(v.rng, countries) }},
	{strings.Fields("currency base quote"), func(v *values, _ string) string { return pick(v.rng, currencies) }},
	{strings.Fields("symbol ticker"), func(v *values, _ string) string { return pick(v.rng, tickers) }},
	{strings.Fields("region location zone datacenter"), func(v *values, _ string) string { return pick(v.rng, regions) }},
	{strings.Fields("ip address cidr"), func(v *values, _ string) string { return v.ip() }},
	{strings.Fields("domain host hostname fqdn"), func(v *values, _ string) string { return v.host() }},
	{strings.Fields("phone msisdn"), func(v *values, _ string) string { return "+1555" + v.digits(7) }},
	{strings.Fields("zip postcode postal zipcode postalcode"), func(v *values, _ string) string { return v.digits(5) }},
	{strings.Fields("version revision build release tag"), (*values).version},
	{strings.Fields("branch ref"), (*values).branch},
	{strings.Fields("file filename filepath document image attachment"), (*values).file},
	{strings.Fields("arn"), (*values).arn},
	{strings.Fields("sku barcode isbn upc ean serial vin asin imei code abbreviation"), (*values).code},
	{strings.Fields("type kind status state category format ext extension action method mode class scope period interval unit provider channel operation property field relation metric event feature"), (*values).kind},
	{strings.Fields("key"), func(v *values, name string) string { return v.keyed(name) }},
	{strings.Fields("name slug label title alias namespace org organization organisation team company repo repository project app application workspace group tenant environment env site bucket queue topic table database cluster service resource role policy"), (*values).slug},
}

func (v *values) byName(name string) string {
	words := splitName(name)
	for _, word := range slices.Backward(words) {
		for _, m := range meanings {
			if slices.Contains(m.words, word) {
				return m.make(v, name)
			}
		}
		if word != words[0] && strings.HasSuffix(word, "id") {
			return v.id(name)
		}
	}
	if strings.HasSuffix(strings.ToLower(name), "id") {
		return v.id(name)
	}
	if strings.HasSuffix(strings.ToLower(name), "name") || v.style("plain "+name).IntN(5) < 3 {
		return v.slug(name)
	}
	return v.id(name)
}

// id is an identifier as services make them: a number, a UUID, an object id, a prefixed
// or plain token, a code, or a name that a person chose.
func (v *values) id(name string) string {
	style := v.style("id")
	if v.style("id "+name).IntN(4) == 0 { // most services have one kind, but not for everything
		style = v.style("own id " + name)
	}
	switch p := style.IntN(100); {
	case p < 34:
		return v.number(name)
	case p < 54:
		return v.uuid()
	case p < 62:
		return v.hex(24)
	case p < 71:
		words := splitName(name)
		return words[0][:min(len(words[0]), 2+style.IntN(3))] + "_" + v.base62(14+style.IntN(12))
	case p < 79:
		return v.base62(20 + style.IntN(8))
	case p < 83:
		return v.upper(26)
	case p < 90:
		return v.code(name)
	default:
		return v.slug(name)
	}
}

func (v *values) number(name string) string {
	switch style := v.style("number " + name); style.IntN(3) {
	case 0:
		return fmt.Sprint(1 + v.rng.IntN(200))
	case 1:
		return fmt.Sprint(1000 + v.rng.IntN(90000))
	default:
		return fmt.Sprint(1000000 + v.rng.IntN(900000000))
	}
}

// slug is a name that a person or a program chose, in the style of the place.
func (v *values) slug(name string) string {
	style := v.style("slug " + name)
	separator := pick(style, []string{"-", "-", "-", "-", "-", "_", "_", "", "%"})
	words := []string{pick(v.rng, nouns)}
	switch p := v.rng.IntN(100); {
	case p < 25:
	case p < 60:
		words = append([]string{pick(v.rng, adjectives)}, words...)
	case p < 75:
		words = append(words, pick(v.rng, nouns))
	case p < 85:
		words = append([]string{pick(v.rng, adjectives)}, words[0], pick(v.rng, nouns))
	default:
		words = append(words, fmt.Sprint(1+v.rng.IntN(40)))
	}
	if separator == "%" { // CamelCase
		for i, w := range words {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
		separator = ""
	}
	return strings.Join(words, separator)
}

func (v *values) username(string) string {
	given, family := pick(v.rng, givenNames), pick(v.rng, familyNames)
	switch v.rng.IntN(6) {
	case 0:
		return given
	case 1:
		return given + "." + family
	case 2:
		return given[:1] + family
	case 3:
		return given + v.digits(1+v.rng.IntN(3))
	case 4:
		return given + "-" + family
	default:
		return pick(v.rng, nouns) + pick(v.rng, familyNames)
	}
}

func (v *values) email() string {
	return pick(v.rng, givenNames) + "." + pick(v.rng, familyNames) + "@" + v.host()
}

func (v *values) host() string {
	return pick(v.rng, nouns) + "." + pick(v.rng, []string{"example.com", "example.org", "com", "io", "co.uk"})
}

func (v *values) ip() string {
	return fmt.Sprintf("%d.%d.%d.%d", 10+v.rng.IntN(200), v.rng.IntN(256), v.rng.IntN(256), 1+v.rng.IntN(254))
}

func (v *values) time() time.Time {
	return time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(v.rng.Int64N(7*365*24*3600)) * time.Second)
}

func (v *values) version(name string) string {
	style := v.style("version " + name)
	switch style.IntN(4) {
	case 0:
		return fmt.Sprint(1 + v.rng.IntN(40))
	case 1:
		return fmt.Sprintf("v%d", 1+v.rng.IntN(12))
	default:
		return fmt.Sprintf("%d.%d.%d", v.rng.IntN(6), v.rng.IntN(20), v.rng.IntN(20))
	}
}

func (v *values) branch(string) string {
	switch v.rng.IntN(4) {
	case 0:
		return pick(v.rng, []string{"main", "master", "develop", "staging"})
	case 1:
		return "release-" + fmt.Sprintf("%d.%d", v.rng.IntN(9), v.rng.IntN(20))
	default:
		return pick(v.rng, []string{"feature", "fix", "chore"}) + pick(v.rng, []string{"-", "/"}) + pick(v.rng, adjectives) + "-" + pick(v.rng, nouns)
	}
}

func (v *values) file(name string) string {
	return strings.ToLower(v.slug(name)) + "." + pick(v.rng, suffixes)
}

func (v *values) arn(name string) string {
	return "arn:aws:" + pick(v.rng, nouns) + ":" + pick(v.rng, regions) + ":" + v.digits(12) + ":" + pick(v.rng, nouns) + "/" + v.slug(name)
}

func (v *values) code(name string) string {
	style := v.style("code " + name)
	n := 3 + style.IntN(7)
	if style.IntN(3) == 0 {
		return strings.ToUpper(v.stem()) + "-" + v.digits(n)
	}
	return v.upper(n)
}

// kind is one of the few words that a parameter can be.
func (v *values) kind(name string) string {
	style := v.style("kind " + name)
	n := 3 + style.IntN(6)
	pool := make([]string, n)
	for i := range pool {
		pool[i] = pick(style, kinds)
	}
	return pick(v.rng, pool)
}

func (v *values) keyed(name string) string {
	switch v.style("key " + name).IntN(4) {
	case 0:
		return v.base62(20)
	case 1:
		return strings.ToUpper(v.stem()) + "-" + v.digits(1+v.rng.IntN(4))
	default:
		return v.slug(name)
	}
}

func (v *values) uuid() string {
	h := v.hex(32)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
}

func (v *values) hex(n int) string {
	b := make([]byte, n/2)
	for i := range b {
		b[i] = byte(v.rng.IntN(256))
	}
	return hex.EncodeToString(b)
}

func (v *values) base62(n int) string {
	return v.from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", n)
}
func (v *values) upper(n int) string  { return v.from("0123456789ABCDEFGHJKMNPQRSTVWXYZ", n) }
func (v *values) digits(n int) string { return v.from("0123456789", n) }

func (v *values) from(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[v.rng.IntN(len(alphabet))]
	}
	return string(b)
}

func pick(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }

// stem is what codes begin with: ORD, CAT.
func (v *values) stem() string {
	noun := pick(v.rng, nouns)
	return noun[:min(3, len(noun))]
}
