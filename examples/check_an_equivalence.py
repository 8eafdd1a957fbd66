"""Check a claim of the kind that papers make: "our layer is a special case of that one, only cheaper"."""

import polyattn as pa

nl, e_nl, poly_nl = pa.catalog.nl(), pa.catalog.e_nl(), pa.catalog.poly_nl()

print("Is E-NL (without its softmax) a non-local block with factored weights?")
verdict = pa.prove(nl, e_nl, given=["wf[d,f] = wq[d,r]*wk[f,r]", "wg[h,b] = 1/N*wv[h,s]*wo[s,b]"])
print(verdict)
assert verdict

print("\nMay Poly-NL be computed from the Gram matrix of its input?")
gram_form = """
    x[N,C]
    gram[h,f] = 1/N * x[e,h]*x[e,f]
    scale[d] = gram[h,f]*w1[h,d]*w2[f,d]
    y[a,b] = x[a,d]*(scale[d]*w3[d,b])
"""
verdict = pa.prove(poly_nl, gram_form)
print(verdict)
assert verdict

print("\nThe same with a mistake, the first weight transposed:")
verdict = pa.prove(poly_nl, gram_form.replace("w1[h,d]", "w1[d,h]"))
print(verdict)
assert not verdict
