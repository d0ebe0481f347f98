"""The AWS side of pixsift, in CDK."""
